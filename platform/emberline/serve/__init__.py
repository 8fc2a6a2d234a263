"""TorchServe, supervised: verified archives in, correct answers out, nothing left behind.

server       all of it together: `serve`
instance     the private folder of one running instance
archives     which archives may be served: verified, copied, described
engine       java and the process that workers are forked from
config       what TorchServe is told, as files and a command line
batching     full batches without a delay
classes      java's classes, kept ready for the next start
torchserve   the java process
workers      the process that workers are forked from, seen from outside
prefork      that process
standin      what java starts instead of a worker
worker       the worker itself
page         what a worker writes down of its work
ledger       what all workers wrote down
management   versions registered, described, scaled, drained over HTTP
probe        one real prediction compared with what the artifact says
bringup      a version registered, started and probed
fleet        what is to be served
intake       archives that come, change and go meanwhile
supervisor   the loop
decide       what is to be done about what was seen: pure
drain        the wait for requests under way
modellog     a worker's last words
tracebacks   a worker's every traceback
status       what is told to the outside
health       /livez, /readyz, /metrics
"""
