"""Values: fetched from workers, put on them, moved among them, published under names."""
