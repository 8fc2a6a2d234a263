"""What live traffic says about two versions: rows → observations → an Assessment that may be looked at at any time."""
