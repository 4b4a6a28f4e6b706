//! Tests only: drives the kit as a user does.
