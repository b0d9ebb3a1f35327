"""Study: which learning rate, schedule and optimizer, answered by runs.

`workloads` holds the built-in tasks, `compare` runs them, `report` writes down what came out.
"""
