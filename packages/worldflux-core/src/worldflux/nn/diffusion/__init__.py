"""Diffusion, once for all families: noise levels, processes, samplers, guidance."""
