package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// inspect makes sure that this Redis can be relied on: that it answers and can be written to, that it throws nothing away, and
// that what lies there is of a format that is known.
func (s *Store) inspect(ctx context.Context) error {
	if err := s.Ping(ctx); err != nil {
		return err
	}
	if err := s.each(ctx, s.inspectServer); err != nil {
		return err
	}
	stored, err := s.client.Get(ctx, s.format).Result()
	if errors.Is(err, goredis.Nil) {
		if err := s.client.SetNX(ctx, s.format, format, 0).Err(); err != nil {
			return s.fault(ctx, err)
		}
		stored, err = s.client.Get(ctx, s.format).Result()
	}
	if err != nil {
		return s.fault(ctx, err)
	}
	if n, err := strconv.Atoi(stored); err != nil || n != format {
		return s.located(fmt.Errorf("%w: it holds records of format %.20q, this wxproxy knows %d: a newer one wrote them", store.ErrCorrupt, stored, format))
	}
	return nil
}

// each calls f with every server that is written to.
func (s *Store) each(ctx context.Context, f func(context.Context, *goredis.Client) error) error {
	switch c := s.client.(type) {
	case *goredis.ClusterClient:
		return c.ForEachMaster(ctx, f)
	case *goredis.Client:
		return f(ctx, c)
	}
	panic("BUG: a client of no kind")
}

// inspectServer reads how a server is set up, as far as it lets us: where its user may not ask, nothing is said.
func (s *Store) inspectServer(ctx context.Context, c *goredis.Client) error {
	is := map[string]string{}
	if info, err := c.Info(ctx).Result(); err == nil {
		for line := bufio.NewScanner(strings.NewReader(info)); line.Scan(); {
			if name, value, ok := strings.Cut(line.Text(), ":"); ok {
				is[name] = value
			}
		}
	} else if _, refused := answerOf(err); !refused {
		return s.fault(ctx, err)
	}
	for _, name := range []string{"maxmemory", "maxmemory-policy", "save", "appendonly"} {
		if config, err := c.ConfigGet(ctx, name).Result(); err == nil {
			is["config "+name] = config[name]
		}
	}
	limit, policy := first(is["config maxmemory"], is["maxmemory"]), first(is["config maxmemory-policy"], is["maxmemory_policy"])
	switch {
	case is["cluster_enabled"] == "1" && s.kind != cluster:
		return s.located(errors.New(refusals["MOVED"]))
	case limit != "" && limit != "0" && policy != "" && policy != "noeviction":
		return s.located(fmt.Errorf("it throws records away when its memory is full (maxmemory-policy %s), and refresh tokens exist once: set maxmemory-policy noeviction, and do not share it with a cache", policy))
	}
	saves, asked := is["config save"]
	if asked && saves == "" && first(is["config appendonly"], is["aof_enabled"]) != "yes" && is["aof_enabled"] != "1" {
		s.warn(s.at + " keeps nothing on disk: when it restarts, the accounts have to be read from WeChat again; set appendonly yes")
	}
	return nil
}

// first is the first that is not empty.
func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
