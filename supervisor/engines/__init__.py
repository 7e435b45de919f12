"""Worker processes: started, fed, watched and killed. `LocalEngine` turns what they say and how they
end into events. No decision, no storage and no view.
"""
