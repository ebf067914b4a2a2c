"""How a graph is computed: algorithms as tensor expressions, their schedules per target, and the choice among them."""
