"""Tables, verdict, figures, HTML pages and the model card, written from measured rows."""
