"""Moves traffic between versions, and nothing else does: observe → assess → act, over and over.

Each round starts from what is on disk or in the cluster, never from memory, so a controller that was killed goes on
where it was. Deciding is pure (`phases`); acting is one status written atomically, noted beforehand in an append-only
log (`audit`), so that a decision is carried out once and with the numbers that made it.
"""
