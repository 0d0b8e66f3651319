# work() of the examples: note that it has begun, then hang if there is a file that says so.
use strict;
use warnings;

sub work {
    my ($job) = @_;
    open my $worked, '>>', 'worked' or die "worked: $!";
    print $worked "$job\n";
    close $worked or die "worked: $!";
    <STDIN> if -e 'hang';
}
