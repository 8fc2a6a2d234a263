"""The one HTTP client for everything asked of this machine's own TorchServe.

Shared, since making a client costs 20 ms of certificates that plain HTTP never uses; without kept connections, since
TorchServe may have been started again between two questions.
"""

import httpx

CLIENT = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)
