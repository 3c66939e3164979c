"""A world in miniature: pictures, captions, masks and boxes from (seed, index), and an oracle that reads pictures back."""
