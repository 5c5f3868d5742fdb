"""What units do: their strongest images and places, the regions where they are active, counts that stream."""
