"""Open-loop load: requests leave when they are due, whether or not earlier ones have come back.

connection   one HTTP/1.1 connection
bodies       what is sent
drive        the requests on their way, each at its time
latency      percentiles, from when a request was due
plot         latency by percentile, drawn

Written by hand, since no kept tool that installs from PyPI or Debian does it: wrk, hey and locust are closed loops (a
slow server is asked less), wrk2 is in no package, k6 and vegeta are programs of Go, and autocannon is one of Node.
"""
