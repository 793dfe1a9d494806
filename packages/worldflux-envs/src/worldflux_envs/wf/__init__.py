"""Our own environments: small, exact, without a simulator, batched in torch."""
