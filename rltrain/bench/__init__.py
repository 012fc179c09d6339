"""What the scripts in `scripts/` measure. Each writes one JSON file and one table under
docs/benchmarks/, with the machine and the versions that the numbers belong to."""
