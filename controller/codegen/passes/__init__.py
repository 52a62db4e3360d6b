"""From a network's blocks to classes, from the layers of a block to straight-line code.

structure    which blocks differ in numbers only
naming       what their class, its parameters and variables are called
numbers      which of the numbers become constructor parameters
forward      the statements of a forward method
describe     one sentence that says what a class does
"""
