"""`emberline tune`: workers, threads, batch size and delay for one artifact, found by measuring each.

grid    which settings are tried, and which of those measured is best: pure
drive   closed-loop load on a server, and its latencies
run     serve with each, measure, write the best into the artifact, archive and sign it anew
"""
