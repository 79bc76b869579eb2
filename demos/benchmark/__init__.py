"""What demos/compare.py is made of: worker processes, rounds, statistics, the table."""
