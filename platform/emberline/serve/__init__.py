"""TorchServe, supervised: verified archives in, correct answers out, nothing left behind.

archives     which archives are served: verified, copied, described
instance     the private folder of one running instance
config       what TorchServe is told, as files and a command line
torchserve   the java process
management   versions registered, described, scaled, drained over HTTP
probe        one real prediction compared with what the artifact says
modellog     a worker's own traceback
decide       what is to be done about what was seen: pure
status       what is told to the outside
health       /livez, /readyz, /metrics
server       all of it together: `serve`
"""
