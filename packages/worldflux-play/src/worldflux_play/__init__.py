"""Play in a world model: a page with the dream beside the real environment."""
