"""One file per registered task: its prompts, its reward and, where it has some, its demonstrations."""
