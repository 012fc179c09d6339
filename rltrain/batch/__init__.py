"""From groups to tensors: `samples` drops the text and attaches advantages, `packing` lays the
sequences out and counts the step's denominators once."""
