"""Several models on one environment with equal budgets: trained, measured and reported."""
