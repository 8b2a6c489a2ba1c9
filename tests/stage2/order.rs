//! What a walker can see, and when.
