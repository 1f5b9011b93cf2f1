"""What a profile made of a recording, as a picture for people: figures in, PNG or HTML out."""
