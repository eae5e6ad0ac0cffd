"""Benchmarks: `python -m bench` prints every table, each beside its peers and measured in the same run."""
