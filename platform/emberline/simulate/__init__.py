"""A simulator of clients, for demos and tests of a stack: its requests are made up, what answers them is real.

Rows come from the recipe's test split, in an order and at times that depend on the seed alone; each is asked for by
one of a fixed population of units. The true label of a row is sent as an outcome some seconds after the answer, as
labels are in life.
"""
