/* Ends at once: what a start costs without a loader of libraries. */
int main(void) { return 0; }
