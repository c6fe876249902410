"""The centre: tracks workers, data and computations, and decides what runs where."""
