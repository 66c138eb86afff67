"""Reading a traced function: what it is made of, what flows through it, and how to change it."""
