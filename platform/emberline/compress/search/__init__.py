"""`emberline compress --search`: which net, pruned how far, in which precision, is worth being served."""
