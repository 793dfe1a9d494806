"""The contracts: what a model, an agent, a state and a batch are."""
