"""`baton profile`: measures an engine by the Engine protocol alone, and fits what is simulated of it."""
