//! What the user named: a live process or a capture; it can be captured, nothing else.
