"""Everything on one machine: each verb a process of its own, none of them imported."""
