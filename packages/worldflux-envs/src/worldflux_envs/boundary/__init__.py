"""What an environment gives and takes, in the contract's form and checked at every step."""
