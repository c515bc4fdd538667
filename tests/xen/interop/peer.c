/* One end of vchans by C's libxenvchan, one after the other, for the tests of our own end against it.
 *
 *   peer server|client DOMID PATH LEFT RIGHT  COUNT SIZE  echo|ping|sink|source...
 *
 * The first is at PATH/0 in the xenstore, the next at PATH/1: it meets anew each time. LEFT and RIGHT are the least
 * bytes of the rings (a server's). echo: COUNT times, receives SIZE bytes and sends them back. ping: the other way
 * round, and prints the median of the round trips in microseconds. sink: receives COUNT times SIZE bytes, which must
 * count up, and answers one byte. source: sends them, and prints MiB a second.
 */
#include <libxenvchan.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	fprintf(stderr, "peer: %s\n", what);
	exit(1);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void fill(uint8_t *data, size_t size, size_t number)
{
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(number + i);
}

static struct libxenvchan *meet(int is_server, int domid, const char *path, size_t left, size_t right)
{
	struct libxenvchan *end = 0;
	if (is_server)
		end = libxenvchan_server_init(0, domid, path, left, right);
	for (int i = 0; !is_server && !end && i < 600; i++) {
		end = libxenvchan_client_init(0, domid, path);
		if (!end)
			usleep(100000);
	}
	if (!end)
		fail("no vchan");
	return end;
}

static void talk(struct libxenvchan *end, int is_server, size_t count, size_t size, const char *what)
{
	end->blocking = 1;
	if (is_server)  /* a client there is none yet is as good as one that has not spoken */
		while (libxenvchan_is_open(end) == 2 && !libxenvchan_data_ready(end))
			libxenvchan_wait(end);
	uint8_t *data = malloc(size), *back = malloc(size);
	double *trips = calloc(count, sizeof *trips), began = now();
	for (size_t n = 0; n < count; n++) {
		if (!strcmp(what, "echo")) {
			if (libxenvchan_recv(end, data, size) != (int)size || libxenvchan_send(end, data, size) != (int)size)
				fail("echo");
		} else if (!strcmp(what, "ping")) {
			double sent = now();
			fill(data, size, n);
			if (libxenvchan_send(end, data, size) != (int)size || libxenvchan_recv(end, back, size) != (int)size)
				fail("ping");
			trips[n] = now() - sent;
			if (memcmp(data, back, size))
				fail("what came back is not what was sent");
		} else if (!strcmp(what, "sink")) {
			if (libxenvchan_recv(end, back, size) != (int)size)
				fail("sink");
			if (back[0] != (uint8_t)n || back[size - 1] != (uint8_t)(n + size - 1))
				fail("what came is not what was sent");
		} else {
			data[0] = (uint8_t)n;
			data[size - 1] = (uint8_t)(n + size - 1);
			if (libxenvchan_send(end, data, size) != (int)size)
				fail("source");
		}
	}
	if (!strcmp(what, "sink") && libxenvchan_send(end, "!", 1) != 1)
		fail("sink's answer");
	if (!strcmp(what, "source")) {
		if (libxenvchan_recv(end, back, 1) != 1)
			fail("no answer of the sink");
		printf("%.3f\n", count * size / (now() - began) / (1 << 20));
	} else if (!strcmp(what, "ping")) {
		qsort(trips, count, sizeof *trips, by_size);
		printf("%.1f\n", trips[count / 2] * 1e6);
	}
	if (!strcmp(what, "echo") || !strcmp(what, "sink"))  /* the last word is read before the pages go */
		while (libxenvchan_is_open(end) && libxenvchan_buffer_space(end) != 1 << end->write.order)
			libxenvchan_wait(end);
	libxenvchan_close(end);
	free(data);
	free(back);
	free(trips);
}

int main(int argc, char **argv)
{
	if (argc < 9)
		fail("too few arguments");
	int is_server = !strcmp(argv[1], "server");
	for (int i = 8; i < argc; i++) {
		char path[64];
		snprintf(path, sizeof path, "%s/%d", argv[3], i - 8);
		struct libxenvchan *end =
			meet(is_server, atoi(argv[2]), path, strtoul(argv[4], 0, 10), strtoul(argv[5], 0, 10));
		talk(end, is_server, strtoul(argv[6], 0, 10), strtoul(argv[7], 0, 10), argv[i]);
	}
	return 0;
}
