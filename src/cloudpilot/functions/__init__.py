"""Functions: what they are (records, versions, aliases), and how calls reach an instance that serves them.

::

    records      what a function is, as data
    registry     functions, their versions and settings in the store; tells who listens what has changed
    code         archives, unpacked once
    launch       what an instance runs: program, environment, directories
    pool         the instances of each version, and the calls that wait for one
    instance     one sandbox that serves calls over Lambda's runtime interface
    events       calls that nobody waits for: kept, tried again, given up
    errors       every refusal

Nothing here knows of any API's formats; kinds of refusals have Lambda's names, since these are the ones that people know.
"""
