"""What we plan and send.

The map of the house: one arrow, ``campaigns ← tracking ← workers ← wsgi``, and inside
``campaigns`` the floors below. A module imports only from its own floor's earlier rooms or
from lower floors; ``tests/architecture`` proves it.

=====  ==============================================================================
floor  rooms
=====  ==============================================================================
5      faces (``views``, ``api``, ``forms``, ``public``) and ``demo``
4      ``delivery``: sends, preflight, compose, SMTP, journal
3      ``planning``: campaigns, activities, their verbs
2      ``content``: messages and templates; ``leads``, then ``capture``: forms
1      ``accounts``: people, roles, audit; then ``audience``: contacts, consent, imports
0      ``config clock errors language tokens db outbox``
=====  ==============================================================================

``web`` holds shared page manners for the faces. A room is ``models.py`` (nouns), files named
for verbs, then its faces. Verbs take ``session`` and ``actor`` and never commit.
"""
