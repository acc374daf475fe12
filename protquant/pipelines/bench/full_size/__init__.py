"""What it costs to prepare and fold a model of the released size: each step in a process of its own."""
