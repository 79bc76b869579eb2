"""The parts of demos/compare.py: worker processes, rounds, statistics, comparison, table, machine and plot."""
