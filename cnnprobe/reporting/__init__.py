"""Diagnoses for people: the terminal, JSON, plots and one page. The only folder that writes files."""
