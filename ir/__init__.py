"""The typed graph IR: what a model computes, with no word about how or where."""
