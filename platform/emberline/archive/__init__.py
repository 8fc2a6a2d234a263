"""From an artifact to a signed `.mar` that a stock TorchServe serves, without emberline.

contents     which files an archive holds, and the model card
handler      which handler it gets; a user's own is checked before it is packed
packing      torch-model-archiver, and its zip made reproducible
store        the archive and its signature, into the store at once
"""
