"""Layers and maths that two or more families share. Import from the modules in this room."""
