"""Environments that ship with rltrain; each is a package with a `build` function."""
