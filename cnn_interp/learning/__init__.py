"""Networks that are trained to be read: filters that each mean one part of one category."""
