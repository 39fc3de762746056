"""May the tag move, and moving it: gate, decision, promotion, history, rollback."""
