"""Elastic training whose result does not depend on which workers came and went.

A step's batch is always computed as V virtual shards, whose gradients are summed in one fixed binary tree; workers
compute shards, and how many workers there are decides only who computes which (the idea: EasyScale, SC'23). So the
weights are equal bit for bit for 1 to V workers and for any kills, on one kind of CPU, at one number of threads.

    launch      `emberline train`: torchrun's agent and rendezvous, with warm workers and a store that outlives agents
    worker      what an agent starts, ours or torchrun's own
    loop        one page that reads as training
    snapshot    the state after each step, in shared memory, so that a killed worker costs the step in flight
    finetune    the same training in the caller's process, for compression
    checkpoint  the state from time to time, on disk, verified at reading, fenced by generation at writing
"""
