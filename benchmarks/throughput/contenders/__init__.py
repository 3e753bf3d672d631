"""What is measured, each a function that prepares itself and then runs a round whenever it is told to."""
