"""Several models in some environments with equal budgets: trained, measured and reported."""
